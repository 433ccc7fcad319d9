"""
The folder of a run: written atomically, trusted by manifests, and read by everything that comes after training. In go a
[`RunSetup`], records of images, pictures and a [`DDPOState`]; out come [`RunFolder`] and [`RunSummary`].
"""
