"""What is known of the chips: their numbers, their instructions, and how long those take."""
