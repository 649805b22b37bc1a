"""``python -m dualview_plugin.cli`` is ``dualview``."""

from dualview_plugin.cli.main import main

main(prog_name="dualview")
