"""A room: book, slides, solutions, grading, and thirty laptops without a network; imported by no notebook."""
