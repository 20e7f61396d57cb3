"""RAW in, batches out: sensor geometry, demosaicing, dataset layouts, a simulated camera, the loader."""
