"""What must hold when the cloud does what clouds do. Each file has one story, a function of a `Setup`."""
