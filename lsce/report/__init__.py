"""From runs to pages, figures and the site."""
