"""The prior that ships with the program: its network class, its weights, its tokenizer and its model card."""
