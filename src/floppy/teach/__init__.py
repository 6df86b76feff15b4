"""A dataset at work: what its card means, policies trained from it, merging, arrays from elsewhere."""
