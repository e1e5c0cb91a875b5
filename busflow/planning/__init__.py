"""What a study takes, told before it starts: FLOPs, memory, hours, disk."""
