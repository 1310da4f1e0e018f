"""Readers: one module a layout on disk. Each gives a `Source`, which `wscl_embed.dataset.load_dataset` finishes."""
