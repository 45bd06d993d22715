"""What must hold when the cloud does what clouds do. Each scenario is a function of a lab; `__main__` names them."""
