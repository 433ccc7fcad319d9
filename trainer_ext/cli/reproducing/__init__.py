"""
`ddpo reproduce`. The name of a task goes in; a run of its preset in the variant that fits this card comes out, with what was
measured of it judged by rules that are fixed beforehand.
"""
