"""What is trained on: labelled images, synthetic points, tables of numbers."""
