CREATE VIEW total AS
SELECT coalesce(sum(price * amount), 0) AS total
FROM sale JOIN product ON product.id = sale.product;
