"""What is optimised: volumes, pictures, drawings, networks between pictures."""
