"""``python -m dualview_plugin.cli`` is ``dualview``."""

from dualview_plugin.cli.main import main

if __name__ == "__main__":
    main(prog_name="dualview")
