"""The user's network as a guest: contexts that leave it as it was."""

from dualview_plugin.network.guest import evaluating, preserved_random_state, restored

__all__ = ["evaluating", "preserved_random_state", "restored"]
