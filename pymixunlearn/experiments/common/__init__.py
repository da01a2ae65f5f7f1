"""Parts that several commands share: inputs, settings, identity, training and evaluation stages, run folders."""
