"""``python -m wscl_embed`` is ``wscl-embed``."""

from wscl_embed.cli import main

if __name__ == "__main__":
    main()
