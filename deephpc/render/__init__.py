"""Values to what people and programs read: tables and sentences, or JSON with a versioned shape."""
