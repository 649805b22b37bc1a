"""The proximal-point method whose steps are solved by semismooth Newton."""
