"""What is optimised: fields, materials, backgrounds, images."""
