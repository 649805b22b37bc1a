"""The dual variables: their sparse state, the projection onto the simplex, working sets and warm starts."""
