"""`experiment`: the paper's tables and figures, one YAML file each, run on three scales."""
