"""The providers that come with Capsule: files, http, shell, system."""
