"""The adapters wscl-embed brings along, one a file; they come through the entry points any other adapter uses."""
