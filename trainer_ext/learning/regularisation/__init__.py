"""
What keeps a policy from gaming its reward, beside `beta`: which images the distance from the reference counts for, when the
reference moves, and how much a good image counts that resembles others. From rewards and distances to weights; pure but for the
memory of the gate.
"""
