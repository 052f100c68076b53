-- One row for each forced liquidation order on Binance.
CREATE TABLE binance_liqs (
    id INT NOT NULL AUTO_INCREMENT,
    symbol VARCHAR(255) NULL,
    side VARCHAR(255) NULL,
    order_type VARCHAR(255) NULL,
    time_in_force VARCHAR(255) NULL,
    original_quantity DECIMAL(30, 8) NULL,
    price DECIMAL(30, 8) NULL,
    average_price DECIMAL(30, 8) NULL,
    order_status VARCHAR(255) NULL,
    order_last_filled_quantity DECIMAL(30, 8) NULL,
    order_filled_accumulated_quantity DECIMAL(30, 8) NULL,
    order_trade_time BIGINT NULL,
    usd_size DECIMAL(30, 8) NULL,
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_unicode_ci;
