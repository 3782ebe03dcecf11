<?php
// What the container's environment says; NAME_FILE names a file with the value.
function container_env(string $name, string $default): string {
    $file = getenv("{$name}_FILE");
    if ($file !== false && $file !== '') {
        return rtrim(file_get_contents($file), "\r\n");
    }
    $value = getenv($name);
    return $value === false ? $default : $value;
}

define('DB_NAME', container_env('WORDPRESS_DB_NAME', 'wordpress'));
define('DB_USER', container_env('WORDPRESS_DB_USER', 'example username'));
define('DB_PASSWORD', container_env('WORDPRESS_DB_PASSWORD', 'example password'));
define('DB_HOST', container_env('WORDPRESS_DB_HOST', 'mysql'));
define('DB_CHARSET', container_env('WORDPRESS_DB_CHARSET', 'utf8mb4'));
define('DB_COLLATE', container_env('WORDPRESS_DB_COLLATE', ''));
define('AUTH_KEY', container_env('WORDPRESS_AUTH_KEY', 'put your unique phrase here'));
define('SECURE_AUTH_KEY', container_env('WORDPRESS_SECURE_AUTH_KEY', 'put your unique phrase here'));
define('LOGGED_IN_KEY', container_env('WORDPRESS_LOGGED_IN_KEY', 'put your unique phrase here'));
define('NONCE_KEY', container_env('WORDPRESS_NONCE_KEY', 'put your unique phrase here'));
define('AUTH_SALT', container_env('WORDPRESS_AUTH_SALT', 'put your unique phrase here'));
define('SECURE_AUTH_SALT', container_env('WORDPRESS_SECURE_AUTH_SALT', 'put your unique phrase here'));
define('LOGGED_IN_SALT', container_env('WORDPRESS_LOGGED_IN_SALT', 'put your unique phrase here'));
define('NONCE_SALT', container_env('WORDPRESS_NONCE_SALT', 'put your unique phrase here'));
$table_prefix = container_env('WORDPRESS_TABLE_PREFIX', 'wp_');
define('WP_DEBUG', (bool) container_env('WORDPRESS_DEBUG', ''));
if (isset($_SERVER['HTTP_X_FORWARDED_PROTO']) && strpos($_SERVER['HTTP_X_FORWARDED_PROTO'], 'https') !== false) {
    $_SERVER['HTTPS'] = 'on';
}
if ($extra = container_env('WORDPRESS_CONFIG_EXTRA', '')) {
    eval($extra);
}
if (!defined('ABSPATH')) {
    define('ABSPATH', __DIR__ . '/');
}
require_once ABSPATH . 'wp-settings.php';
