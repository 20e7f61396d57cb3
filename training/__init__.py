"""The algorithm, what it keeps, and what it tells: built objects go in, detached statistics come out."""
