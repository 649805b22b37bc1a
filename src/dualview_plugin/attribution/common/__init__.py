"""What attribution methods have in common below the base class: its parts, and what they are made of."""
