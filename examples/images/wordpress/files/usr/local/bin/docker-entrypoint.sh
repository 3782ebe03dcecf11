#!/bin/bash
# Puts WordPress into /var/www/html at the first start. Its wp-config.php reads
# the WORDPRESS_… variables at every request.
set -euo pipefail
if [ "${1:-}" = apache2-foreground ] && [ ! -e index.php ] && [ ! -e wp-includes/version.php ]; then
    echo "WordPress is not in $PWD yet: copying it" >&2
    cp -a /usr/src/wordpress/. .
    # Keys of this site alone, made once.
    while IFS= read -r line; do
        case $line in
            *"'put your unique phrase here'"*)
                line=${line/put your unique phrase here/$(head -c 48 /dev/urandom | base64 -w0)} ;;
        esac
        printf '%s\n' "$line"
    done </usr/src/wordpress/wp-config.php >wp-config.php.new
    chown www-data:www-data wp-config.php.new
    mv wp-config.php.new wp-config.php
fi
exec "$@"
