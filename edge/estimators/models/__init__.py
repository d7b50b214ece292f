"""The pose models: which there are, where they can be had, and where they are kept.

catalog      the three bundles and their pinned hashes
sources      the ways a bundle can come from: official address, mirror, directory, package registries
task_bundle  the format, to make a bundle out of bare networks
store        a directory of verified bundles
"""
