"""Training what a checkpoint lacks, from labelled photos: FERAnno's head and guides."""
