"""
The fused on-policy pass: the log-probability gradient of each image, taken while the image is sampled. A trained module and a
policy go in; [`ImageGradients`] come out, which are weighed when the rewards arrive.
"""
