"""The priors, a file each: how likely the levels of a latent are, given what is decoded before them."""
