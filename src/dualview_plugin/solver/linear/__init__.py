"""Linear systems that Newton's method and the interior-point method share."""
