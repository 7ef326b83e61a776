"""The only room that imports ray: Data for features, Train for models."""
