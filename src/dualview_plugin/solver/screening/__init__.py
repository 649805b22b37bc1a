"""The outer loop: screens of all points, the choice of the next step, and the conditions to stop."""
