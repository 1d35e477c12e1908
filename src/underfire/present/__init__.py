"""What studies and the report draw with: numbers as text, colours, plots as SVG, pictures."""
