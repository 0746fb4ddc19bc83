"""Edusign: attendance sheets and their signatures."""
