"""What is due, why, and who asks for it: the plan and the sensors that carry it out."""
