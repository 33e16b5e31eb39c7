"""Image references, the verified store and the engines that run a command in an image, or natively."""
