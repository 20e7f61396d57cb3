"""From a trained generator to a phone's model file: the phone's form of a network, its files, and what they compute."""
