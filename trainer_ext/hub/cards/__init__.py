"""
What the cards on the Hub say: a [`RunFolder`] goes in, with the README.md that is there; the text of the new one comes out.
"""
