"""
The folder of a run: written atomically, trusted by its manifests, and read by everything that comes after training.
"""
