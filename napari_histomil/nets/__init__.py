"""Neural nets, without slides: load them, and make them cheaper."""
