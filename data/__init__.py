"""RAW mosaics and photographs, from files to batches.

- sensor: cameras' CFA orders and levels, the generators' input formats
- menon, reference: demosaicing, the content loss's reference image
- folders, files, cache: dataset layouts and splits, reading files, keeping them decoded
- patches, loader: training samples and batches, whole files for evaluation
- notes: lines on stderr about what is left out
- unprocess, cuts, simulate, demo: datasets of a simulated camera
- registration, local_motion, agreement, alignment: a photograph in the pixels of a mosaic
- matching, aligned, misalignment: which files are pairs, datasets of aligned pairs, pairs that are not aligned
- spectra, simulate_cameras: datasets of two simulated cameras
"""
