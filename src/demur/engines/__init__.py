"""demur inside the engines that others serve and generate with. Each engine is an extra of its own."""
