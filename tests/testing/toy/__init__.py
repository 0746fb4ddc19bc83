"""The smallest platform that signs: papers are handed in and taken back."""
