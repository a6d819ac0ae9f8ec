"""Programs in the shape of the reference's examples: its imports, its calls."""
