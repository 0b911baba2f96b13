"""GANplification: what a generator trained on few events is worth, where the truth is known."""
