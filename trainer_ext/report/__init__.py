"""
Shows runs. In go the folders of runs; out come HTML pages that need nothing else: a report, a comparison, a blind vote.
"""
